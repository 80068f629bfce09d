"""What the commands do once their options have been read; may import torch and Ray."""
