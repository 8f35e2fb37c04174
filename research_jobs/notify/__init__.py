"""Who is told what, when and how: conditions, the decision, channels."""
