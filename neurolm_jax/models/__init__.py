"""Pure Linen modules and functions: attention, transformer, quantizer, tokenizer, NeuroLM."""
