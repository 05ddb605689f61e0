"""The open session of `omnidrop chat`: what is typed, what it does, and what it shows."""
