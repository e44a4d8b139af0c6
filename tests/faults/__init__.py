"""Faults on purpose: learners, and the torchrun that started them, are killed while a run trains."""
