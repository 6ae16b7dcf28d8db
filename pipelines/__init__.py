"""Ray Data applications: fetch videos, and extract face groups from them."""
