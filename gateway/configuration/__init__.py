"""From texts of YAML to nouns: shapes, units, presets, prices, who pays.  `gateway.settings` is the door."""
