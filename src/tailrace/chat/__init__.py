"""The chat server: sessions of many turns with a model, each reply a stream that survives the network."""
