// Ranks of different machines, over TCP: every rank exchanges with every other one of the group, a chunk at a time.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "comm/gloo_mesh.h"

namespace hadal {

// A group of some ranks of a mesh, in the given order; the mesh's own rank is one of them. Groups of one mesh share its
// connections, its thread and its first error. timeout: of one operation.
std::unique_ptr<Communicator> make_gloo_group(std::shared_ptr<GlooMesh> mesh, std::vector<int> ranks,
                                              std::chrono::milliseconds timeout);

// A mesh of its own, with all its ranks. Errors: as GlooMesh::connect.
Expected<std::unique_ptr<Communicator>> join_gloo_group(KeyValueStore& store, const GlooGroupOptions& options);

}  // namespace hadal
