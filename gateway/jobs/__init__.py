"""What goes on after its request is over: kept in SQL, followed by whichever gateway is alive."""
