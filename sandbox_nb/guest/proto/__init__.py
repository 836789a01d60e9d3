"""The agent's services: messages and typed stubs, generated from the .proto files here."""
