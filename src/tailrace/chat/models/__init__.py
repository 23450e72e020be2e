"""What answers: a model is one async generator of pieces of text."""
