"""Training: one loop, a task module for each stage, and what they need."""
