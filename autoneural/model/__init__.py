"""The model: MobileNetV5 (or ViT) encoder, norm-free projector, LFM2 decoder."""
