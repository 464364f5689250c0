"""What ``torch.save`` wrote, read without torch and without unpickling: nothing in a file is ever run."""

from relabel_store.convert.torch_file.read import Tensor, read_object, read_tensor

__all__ = ["Tensor", "read_object", "read_tensor"]
