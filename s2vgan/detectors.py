"""x."""
TAG = "warnings"
def find(*a): return []
