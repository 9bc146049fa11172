// How a matrix product is cut into work items. The one place that knows it, for float32 and int8 alike.
//
// The product is M rows of x against the packed panels of the weights (a panel = the columns of one
// register tile). An item is a chunk of rows times a group of neighbouring panels. Items run chunk by
// chunk: a chunk of x is small enough to stay in the L2 cache while the weights stream past it, and
// whatever a kernel prepares per chunk (widened codes, gathered patches) serves all its groups.
//
// The cut depends on shapes alone. It never cuts K, so it cannot change a result.
#pragma once
#include "ptq4vm/view.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct Plan {
  int64_t rows;
  int64_t chunk_rows;  // a multiple of the register tile's rows
  int64_t chunks;
  int32_t panels;
  int32_t group_panels;
  int32_t groups;

  int64_t items() const { return chunks * groups; }
};

// What an item covers.
struct Tile {
  int64_t chunk;
  int64_t row_begin, row_end;
  int32_t panel_begin, panel_end;
};

constexpr int64_t kChunkBytes = 512 * 1024;  // of x: a quarter to a half of the L2 of current server cores
constexpr int64_t kMaxChunkRows = 240;       // a multiple of every tile's rows, so that rounding keeps below it
constexpr int64_t kWantedItems = 32;         // two for each of 16 threads
constexpr int64_t kMinItemCost = 10'000;  // vector instructions, some 1.5 µs: below it, handing out items costs more
constexpr int32_t kPanelsPerItem = 4;     // where there is work enough to choose

// tile_rows: rows of the register tile; row_bytes: bytes of one (prepared) row of x; cost: vector instructions for one
// row against one panel; min_group: panels that stay together as long as rows can be split instead (preparing a row
// costs).
static inline Plan make_plan(int64_t rows, int64_t tile_rows, int64_t row_bytes, int32_t panels, int64_t cost,
                             int32_t min_group) {
  int64_t chunk_rows = kChunkBytes / row_bytes;
  chunk_rows = chunk_rows < kMaxChunkRows ? chunk_rows : kMaxChunkRows;
  chunk_rows = chunk_rows < tile_rows ? tile_rows : chunk_rows;
  const int64_t chunks = ceil_div(rows, chunk_rows);
  chunk_rows = rows > 0 ? round_up(ceil_div(rows, chunks), tile_rows) : tile_rows;
  min_group = min_group < panels ? min_group : panels;
  int32_t group = panels < kPanelsPerItem ? panels : kPanelsPerItem;
  group = group < min_group ? min_group : group;

  const auto item_cost = [&] { return (chunk_rows < rows ? chunk_rows : rows) * group * cost; };
  const auto items = [&] { return ceil_div(rows, chunk_rows) * ceil_div(panels, group); };
  while (group < panels && item_cost() < kMinItemCost) group = 2 * group < panels ? 2 * group : panels;
  while (items() < kWantedItems && item_cost() >= 2 * kMinItemCost) {
    const bool split_rows = chunk_rows > 2 * tile_rows;
    if (group > min_group || (group > 1 && !split_rows)) {
      group = (group + 1) / 2 > min_group || !split_rows ? (group + 1) / 2 : min_group;
    } else if (split_rows) {
      chunk_rows = round_up(chunk_rows / 2, tile_rows);
    } else {
      break;
    }
  }
  Plan p;
  p.rows = rows;
  p.chunk_rows = chunk_rows;
  p.chunks = ceil_div(rows, p.chunk_rows);
  p.panels = panels;
  p.group_panels = group;
  p.groups = static_cast<int32_t>(ceil_div(panels, p.group_panels));
  return p;
}

static inline Tile tile_of(const Plan& p, int64_t item) {
  Tile t;
  t.chunk = item / p.groups;
  const int32_t group = static_cast<int32_t>(item % p.groups);
  t.row_begin = t.chunk * p.chunk_rows;
  t.row_end = t.row_begin + p.chunk_rows < p.rows ? t.row_begin + p.chunk_rows : p.rows;
  t.panel_begin = group * p.group_panels;
  t.panel_end = t.panel_begin + p.group_panels < p.panels ? t.panel_begin + p.group_panels : p.panels;
  return t;
}

// Walks the rows of all images as one sequence, whatever the strides. Row m is row m mod rows of image m div rows.
struct RowCursor {
  int64_t image, row;
  int32_t rows;

  RowCursor(int64_t m, int32_t rows_per_image)
      : image(m / rows_per_image), row(m % rows_per_image), rows(rows_per_image) {}
  void next() {
    if (++row == rows) {
      row = 0;
      ++image;
    }
  }
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
