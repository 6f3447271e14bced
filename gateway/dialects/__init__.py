"""How providers talk: one module per wire format, all pure."""
