"""What does the machine give us? Processes that die with us, ports that are free, and whose listener it is."""
