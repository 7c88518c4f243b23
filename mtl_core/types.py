"""Names for the mappings that travel through the suite, and its shape letters.

Shape letters, the same in every file:

| letter | meaning |
|---|---|
| B | samples in a batch |
| T | tasks, or tokens where a docstring says so in its first line |
| C | channels of a feature map or of a prediction |
| D | width of a feature vector or token |
| H, W | height and width of an image or map |
| E | experts |
| K | classes |
| M | candidates, query points or another free axis of a prediction |
"""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

TaskName: TypeAlias = str
Inputs: TypeAlias = Tensor | Mapping[str, Tensor]
Predictions: TypeAlias = dict[TaskName, Tensor]
Losses: TypeAlias = dict[str, Tensor]
