"""What an answer costs: estimated before, measured during, drawn after."""
