"""Networks in files: pickles of today and of TensorFlow's time, and safetensors; read without running their code."""
