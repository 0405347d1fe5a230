// Blocks by steps, in colours that colour-blind people tell apart too.
// Columns come by `take`, each of them once.
const STOPS = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
];
const RGB = STOPS.map((stop) =>
  [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)),
);
// pixels of a row, and between banks
const ROW = 6;
const GAP = 9;
// of how many blocks one is named
const EVERY = 6;
const MOVES = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  Home: [0, -1e4],
  End: [0, 1e4],
};

function limit(value, most) {
  return Math.min(most, Math.max(0, value));
}

function text(value, digits) {
  if (value && (value < 0.01 || value >= 1e4)) return value.toExponential(digits - 1);
  return `${+value.toPrecision(digits)}`;
}

// The colour at a share of 0 to 1 of the ramp, between its two nearest stops.
function colour(share) {
  const at = limit(share, 1) * (RGB.length - 1);
  const low = Math.min(Math.floor(at), RGB.length - 2);
  const mix = (part, k) => Math.round(part + (RGB[low + 1][k] - part) * (at - low));
  return `rgb(${RGB[low].map(mix)})`;
}

export default {
  props: {
    names: Array, // of the rows
    frozen: Array, // some of the names
    log: Boolean, // the scale
    what: String, // is shown
    shared: Array, // the ends of the scale where other maps have the same one
  },
  emits: ["ready"],
  template: `
    <figure
      :style="{ '--ramp': '${STOPS}', '--row': '${ROW}px', '--gap': '${GAP}px' }"
    >
      <p class="chart-bar">
        <span aria-live="polite">{{ told }}</span>
        <span class="heat-legend" aria-hidden="true">{{ ends[0] }}<i
          class="heat-ramp"
        ></i>{{ ends[1] }}<i class="heat-frozen"></i>frozen</span>
      </p>
      <div class="chart-body">
        <div class="chart-names" aria-hidden="true">
          <span
            v-for="row in rows.filter((row) => row.named)"
            :style="{ top: row.top + ${ROW / 2} + 'px' }"
          >{{ row.name }}</span>
        </div>
        <div class="heat-field" :style="{ height: high + 'px' }">
          <canvas
            ref="map"
            role="img"
            tabindex="0"
            :aria-label="summary"
            @pointermove="point"
            @pointerdown="point"
            @pointerleave="cell = null"
            @blur="cell = null"
            @keydown="key"
          ></canvas>
          <i
            v-for="row in rows.filter((row) => row.first)"
            class="heat-gap"
            :style="{ top: row.top - ${GAP} + 'px' }"
          ></i>
          <i v-if="cell" class="heat-mark" :style="mark"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true">
        <span v-for="step in firstAndLast">{{ step?.toLocaleString("en") }}</span>
      </div>
    </figure>`,
  data() {
    return {
      turn: 0, // counts what was taken
      cell: null, // row and column that are looked at
    };
  },
  created() {
    // Not reactive: of a long run they are large, and `turn` tells of a change.
    this.steps = [];
    this.columns = [];
    this.size = new ResizeObserver(() => this.draw());
  },
  mounted() {
    this.size.observe(this.$refs.map);
    // what is drawn depends on these alone, not on each move of the mouse
    this.$watch(() => [this.turn, this.rows, this.log, this.shared], this.draw, {
      flush: "post",
    });
    this.$emit("ready");
  },
  beforeUnmount() {
    this.size.disconnect();
  },
  watch: {
    names() {
      this.cell = null;
    },
  },
  computed: {
    rows() {
      const kinds = this.names.map((name) => name.split("_")[0]);
      let top = -ROW;
      return this.names.map((name, k) => {
        const first = k > 0 && kinds[k] !== kinds[k - 1];
        const index = Number(name.split("_").pop()) || 0;
        top += first ? ROW + GAP : ROW;
        return {
          name: name.replace("_block_", " "),
          top,
          first,
          named: index % EVERY === 0,
          frozen: this.frozen.includes(name),
        };
      });
    },
    high() {
      return (this.rows.at(-1)?.top ?? -ROW) + ROW;
    },
    // `void this.turn` makes Vue compute anew when columns have come: they are not reactive.
    firstAndLast() {
      void this.turn;
      return [...new Set([this.steps[0], this.steps.at(-1)])];
    },
    mark() {
      void this.turn;
      const [row, column] = this.cell;
      const count = this.columns.length;
      return {
        top: `${this.rows[row].top}px`,
        left: `${(100 * column) / count}%`,
        width: `${100 / count}%`,
      };
    },
    domain() {
      void this.turn;
      const values = this.shared ?? this.columns.flat().filter((value) => value > 0);
      const low = values.length ? Math.min(...values) : 0.1;
      const top = values.length ? Math.max(...values) : 1;
      if (!this.log) return [0, top];
      // half powers of ten: ends that stay as values come
      const first = Math.floor(2 * Math.log10(low));
      const last = Math.max(Math.ceil(2 * Math.log10(top)), first + 1);
      return [10 ** (first / 2), 10 ** (last / 2)];
    },
    ends() {
      return this.domain.map((end) => text(end, 2));
    },
    summary() {
      void this.turn;
      const count = this.columns.length;
      const span = this.ends.join(" to ");
      return `${this.what} by block, ${count} columns, from ${span}. Arrow keys read the values.`;
    },
    told() {
      if (!this.cell) return "Point at a block for its value";
      const [row, column] = this.cell;
      const { name, frozen } = this.rows[row];
      const value = this.columns[column]?.[row];
      let words = value == null ? "no value" : text(value, 3);
      if (frozen) words = "frozen";
      const step = this.steps[column]?.toLocaleString("en");
      return `Step ${step} · ${name} · ${words}`;
    },
  },
  methods: {
    take(name, start, steps, columns) {
      this.steps.splice(start, Infinity, ...steps);
      this.columns.splice(start, Infinity, ...columns);
      this.turn += 1;
      if (!start) this.cell = null;
    },
    look(row, column) {
      const { rows, columns } = this;
      if (!columns.length) this.cell = null;
      else this.cell = [limit(row, rows.length - 1), limit(column, columns.length - 1)];
    },
    point({ target, clientX, clientY }) {
      const box = target.getBoundingClientRect();
      this.look(
        this.rows.findLastIndex((row) => row.top <= clientY - box.top),
        Math.floor(((clientX - box.left) / box.width) * this.columns.length),
      );
    },
    key(event) {
      if (!MOVES[event.key]) return;
      event.preventDefault();
      const [down, right] = MOVES[event.key];
      if (this.cell) this.look(this.cell[0] + down, this.cell[1] + right);
      else this.look(0, Infinity);
    },
    draw() {
      // what stays clear shows the hatching behind
      const { map } = this.$refs;
      const fine = devicePixelRatio;
      const wide = Math.round(map.clientWidth * fine);
      map.width = wide;
      map.height = Math.round(this.high * fine);
      const ink = map.getContext("2d");
      const edge = (column) => Math.round((column * wide) / this.columns.length);
      this.columns.forEach((values, column) => {
        const left = edge(column);
        const width = edge(column + 1) - left;
        values.forEach((value, row) => {
          // of another run there may be more rows for a moment
          if (value == null || (this.rows[row]?.frozen ?? true)) return;
          const top = Math.round(this.rows[row].top * fine);
          ink.fillStyle = colour(this.share(value));
          ink.fillRect(left, top, width, Math.ceil(ROW * fine));
        });
      });
    },
    // Where a value lies on the ramp, 0 to 1.
    share(value) {
      const [low, top] = this.domain;
      if (!this.log) return value / top;
      return Math.log(Math.max(value, low) / low) / Math.log(top / low);
    },
  },
};
