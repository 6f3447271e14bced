"""Batches: requests by the file, answered within a day, at the provider's batch price.

    order -> hold -> submit -> look ... -> settle, line by line -> output

`order` reads and plans a client's file, `hold` sets the most it can cost aside, `runner` does the rest beside the
requests, whether or not somebody asks how far it is.
"""
