"""What a router is worth on recorded outcomes, always beside what no router is worth.

curves.py    quality against cost: PGR, APGR, CPT, hulls, AIQ; pure
judge.py     one file of outcomes -> every figure, thresholds fixed on one half and tested on the other
agreement.py cascades that need no training: two cheap models agree, else the strong one
report.py    the figures as a table, a picture and a page
"""
