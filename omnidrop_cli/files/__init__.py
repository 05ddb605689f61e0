"""What commands write: answers, profiles, evaluations, SVG; and the manifest they read."""
