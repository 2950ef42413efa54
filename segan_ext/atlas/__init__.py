"""The atlas: a page that ranks all dimensions by how much they change the image, and says where and what they move."""

from segan_ext import host

host.activate()
