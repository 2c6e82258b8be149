"""What the trainers of both hosts use: the objective, crops, averaged weights, corpora."""
