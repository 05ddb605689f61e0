"""What commands write: answers, profiles, evaluations, SVG; and the questions they read."""
