"""Statements of what was spent: who pays how much of it, and in which form.  Pure but for the writing of files."""
