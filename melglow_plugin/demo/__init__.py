"""``melglow demo``: a page on this machine to try the models with a sentence or a recording."""
