"""The original's claims, and the judge of them."""
