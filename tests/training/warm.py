"""What processes of a test inherit from the server that forks them, rather than each of them making it anew."""

from contextlib import suppress

import runs  # noqa: F401
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp
import torch.utils.tensorboard  # noqa: F401

from catlip_lite.labels import CaptionLabeler

CaptionLabeler()  # WordNet's tables stay in memory
with suppress(ImportError):
    import open_clip  # noqa: F401
