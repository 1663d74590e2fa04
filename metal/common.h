// Shared by all kernels.
#pragma once
