"""The envelope messages of ttrpc, generated from envelope.proto."""
