"""Which convention a mel seems to follow."""
