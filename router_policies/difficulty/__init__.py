"""Routing by difficulty: how likely each candidate is to answer this request well enough.

text.py      what of a prompt is read, and how: terms and shape            (standard library)
model.py     numbers -> P(good enough) per model, or no opinion            (numpy, imported when first used)
artifact.py  a model as a directory: `artifact.npz` and `card.json`
policy.py    the policy: the cheapest candidate that is good enough
records.py   the same from a gateway's own records, where readings stand for prompts
outcomes.py  outcome files: what each model answered, query by query       (pyarrow)
learn.py     outcomes -> model                                             (scikit-learn)
train.py     the same with a card, and never a worse artifact over a better one
verifier.py  prompt and answer -> P(the answer is right), for the policy `cascade`
answers.py   recorded answers -> verifier, with a calibrated bound
evaluation/  what a router is worth, beside what no router is worth
"""

from router_policies.difficulty.policy import Difficulty

__all__ = ["Difficulty"]
