"""What is trained: models, data and recipes. Nothing here knows about MPI."""
