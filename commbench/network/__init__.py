"""Networks that are not at hand: clusters as files, and what an exchange would cost on them."""
