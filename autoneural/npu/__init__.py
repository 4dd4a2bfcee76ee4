"""From integer graphs to Qualcomm context binaries, and what the emulator says of them."""
