"""What papers claim, with tolerances set beforehand, and the verdicts on them."""
