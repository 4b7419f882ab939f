// NumPy's .npz as Intel Neural Compressor writes it: a ZIP archive of one stored (not compressed) member arr_0.npy, NPY
// version 1.0, holding one pickled 0-d object array. Facts: spec/gaudi-pipeline.md 3.3; ZIP: APPNOTE.TXT 4.3.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "formats/pickle.h"

namespace hadal {

// What np.load(file, allow_pickle=True)["arr_0"].item() would give, see object_array_from_pickle(). Errors: kCorrupt
// for an archive that contradicts itself (sizes, offsets, CRC-32), kUnsupported for compression, encryption, other
// members or another NPY header.
Expected<Json> object_from_npz(std::string_view bytes, const PickleLimits& limits = {});

// The archive that np.savez writes for such a pickle, byte for byte. Requires a pickle below 4 GiB.
std::string npz_from_pickle(std::string_view pickle);

}  // namespace hadal
