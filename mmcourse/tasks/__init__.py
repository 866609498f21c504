"""What a multimodal model is used for, one task a file, taught in 09 to 12."""
