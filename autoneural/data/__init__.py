"""Pictures, text and conversations: from files to tensors. Only `loader` needs torch."""
