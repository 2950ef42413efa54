"""Linear semantics (Xu and Zheng, "Linear Semantics in Generative Adversarial Networks", CVPR 2021).

A generator's features tell, pixel by pixel and by a linear map alone, which part of what it shows is where. From a few
labelled images such a map is learned (`training`, `closed_form`, `few_shot`), judged (`evaluation`), and used to sample
images of a given layout (`sampling`), to edit images by painting their label map (`painting`), to keep subspace edits
inside a class (`regions`) and to say which classes a dimension moves (`class_effects`).
"""

from segan_ext import host

host.activate()
