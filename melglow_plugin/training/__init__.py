"""What both hosts' trainers share: the objective, crops, averaged weights, corpora."""
