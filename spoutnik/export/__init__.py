"""Models on their way out: folders that transformers loads and GGUF files that llama.cpp loads."""
