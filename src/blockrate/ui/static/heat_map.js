// Blocks by steps, in colours that colour-blind people tell apart too. Columns come by `take`, each of them once.
const STOPS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const RGB = STOPS.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
const [ROW, GAP, EVERY] = [6, 9, 6]; // pixels of a row and between banks; of how many blocks one is named
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e4], End: [0, 1e4] };

const limit = (value, most) => Math.min(most, Math.max(0, value));
const text = (value, digits) => (value && (value < 0.01 || value >= 1e4) ? value.toExponential(digits - 1) : `${+value.toPrecision(digits)}`);
function colour(share) {
  const at = limit(share, 1) * (RGB.length - 1), low = Math.min(Math.floor(at), RGB.length - 2);
  return `rgb(${RGB[low].map((part, k) => Math.round(part + (RGB[low + 1][k] - part) * (at - low)))})`;
}

export default {
  props: ["names", "frozen", "log", "what"], // names: of the rows; frozen: some of them; log: the scale; what: is shown
  emits: ["ready"],
  template: `
    <figure :style="{ '--ramp': '${STOPS}', '--row': '${ROW}px', '--gap': '${GAP}px' }">
      <p class="chart-bar"><span aria-live="polite">{{ told }}</span>
        <span class="heat-legend" aria-hidden="true">{{ ends[0] }}<i class="heat-ramp"></i>{{ ends[1] }}<i class="heat-frozen"></i>frozen</span></p>
      <div class="chart-body">
        <div class="chart-names" aria-hidden="true"><span v-for="row in rows.filter((row) => row.named)" :style="{ top: row.top + ${ROW / 2} + 'px' }">{{ row.name }}</span></div>
        <div class="heat-field" :style="{ height: high + 'px' }">
          <canvas ref="map" role="img" tabindex="0" :aria-label="summary" @pointermove="point" @pointerdown="point" @pointerleave="cell = null" @blur="cell = null" @keydown="key"></canvas>
          <i v-for="row in rows.filter((row) => row.first)" class="heat-gap" :style="{ top: row.top - ${GAP} + 'px' }"></i>
          <i v-if="cell" class="heat-mark" :style="{ top: rows[cell[0]].top + 'px', left: (100 * cell[1]) / columns.length + '%', width: 100 / columns.length + '%' }"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true"><span v-for="step in (turn, [...new Set([steps[0], steps.at(-1)])])">{{ step?.toLocaleString("en") }}</span></div>
    </figure>`,
  data: () => ({ turn: 0, cell: null }), // turn: counts what was taken; cell: row and column that are looked at
  created() { Object.assign(this, { steps: [], columns: [], size: new ResizeObserver(() => this.draw()) }); },
  mounted() {
    this.size.observe(this.$refs.map);
    this.$watch(() => [this.turn, this.rows, this.log], this.draw, { flush: "post" }); // not for each move of the mouse
    this.$emit("ready");
  },
  beforeUnmount() { this.size.disconnect(); },
  watch: { names() { this.cell = null; } },
  computed: {
    rows() {
      const kinds = this.names.map((name) => name.split("_")[0]);
      let top = -ROW;
      return this.names.map((name, k) => {
        const first = k > 0 && kinds[k] !== kinds[k - 1], index = Number(name.split("_").pop()) || 0;
        return { name: name.replace("_block_", " "), top: (top += first ? ROW + GAP : ROW), first, named: index % EVERY === 0, frozen: this.frozen.includes(name) };
      });
    },
    high() { return (this.rows.at(-1)?.top ?? -ROW) + ROW; },
    domain() {
      const values = (this.turn, this.columns.flat().filter((value) => value > 0)), [low, top] = values.length ? [Math.min(...values), Math.max(...values)] : [0.1, 1];
      const tens = [Math.floor(2 * Math.log10(low)), Math.ceil(2 * Math.log10(top))]; // halves of them: ends that stay as values come
      return this.log ? [10 ** (tens[0] / 2), 10 ** (Math.max(tens[1], tens[0] + 1) / 2)] : [0, top];
    },
    ends() { return this.domain.map((end) => text(end, 2)); },
    summary() { return (this.turn, `${this.what} by block, ${this.columns.length} columns, from ${this.ends.join(" to ")}. Arrow keys read the values.`); },
    told() {
      if (!this.cell) return "Point at a block for its value";
      const [row, column] = this.cell, value = this.columns[column]?.[row], words = this.rows[row].frozen ? "frozen" : value == null ? "no value" : text(value, 3);
      return `Step ${this.steps[column]?.toLocaleString("en")} · ${this.rows[row].name} · ${words}`;
    },
  },
  methods: {
    take(name, start, steps, columns) {
      this.steps.splice(start, Infinity, ...steps);
      this.columns.splice(start, Infinity, ...columns);
      [this.turn, this.cell] = [this.turn + 1, start ? this.cell : null];
    },
    look(row, column) { this.cell = this.columns.length ? [limit(row, this.rows.length - 1), limit(column, this.columns.length - 1)] : null; },
    point({ target, clientX, clientY }) {
      const box = target.getBoundingClientRect();
      this.look(this.rows.findLastIndex((row) => row.top <= clientY - box.top), Math.floor(((clientX - box.left) / box.width) * this.columns.length));
    },
    key(event) {
      if (!MOVES[event.key]) return;
      event.preventDefault();
      this.look(...(this.cell?.map((at, k) => at + MOVES[event.key][k]) ?? [0, Infinity]));
    },
    draw() { // what stays clear shows the hatching behind
      const { map } = this.$refs, fine = devicePixelRatio, [low, top] = this.domain, wide = Math.round(map.clientWidth * fine);
      Object.assign(map, { width: wide, height: Math.round(this.high * fine) });
      const ink = map.getContext("2d"), edge = (column) => Math.round((column * wide) / this.columns.length);
      const share = this.log ? (value) => Math.log(Math.max(value, low) / low) / Math.log(top / low) : (value) => value / top;
      this.columns.forEach((values, column) => values.forEach((value, row) => {
        if (value == null || (this.rows[row]?.frozen ?? true)) return; // of another run there may be more rows for a moment
        ink.fillStyle = colour(share(value));
        ink.fillRect(edge(column), Math.round(this.rows[row].top * fine), edge(column + 1) - edge(column), Math.ceil(ROW * fine));
      }));
    },
  },
};
