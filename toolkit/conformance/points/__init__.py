"""The points of the suite, a file per topic."""
