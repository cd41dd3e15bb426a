"""The carrier: its wire, its leg, its signatures, its documents and its REST interface. No other room says a word of its."""
