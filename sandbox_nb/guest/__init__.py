"""What runs inside the machine: the agent's source and protocol, and the builder of the images it boots from."""
