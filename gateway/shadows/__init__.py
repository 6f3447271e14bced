"""A share of the requests is answered by another plan as well, after the client has its answer, and both are compared.

payer.py       who pays: a tenant of the route's own, with one daily budget
repeated.py    which requests can be asked again, and how
ear.py         a copy of what the client was sent
compared.py    two answers -> how much they agree
beside.py      when it happens: beside the requests, few at once, and never in their way
"""
