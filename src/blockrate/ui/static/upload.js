// Files, folders and zips that are dropped or chosen, sent in pieces one after another.
// The server answers "chosen" with an id for each file that may come; a piece that is
// lost on the way is sent again from where the server is.

// milliseconds until the next try
const PAUSES = [500, 1000, 2000, 4000, 8000];
// files in a message: one of more than a megabyte does not get through
const AT_ONCE = 1000;

async function inside(entry, path) {
  const name = path + entry.name;
  if (entry.isFile) {
    const file = await new Promise((take, fail) => entry.file(take, fail));
    return [{ name, file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // a hundred at a time, until there are none
    const some = await new Promise((take, fail) => reader.readEntries(take, fail));
    if (!some.length) break;
    found.push(...some);
  }
  const all = await Promise.all(found.map((one) => inside(one, `${name}/`)));
  return all.flat();
}

// What stands before the first slash of all is the folder that was dropped.
function withoutOuter(files) {
  const outer = new Set(files.map(({ name }) => name.split("/")[0]));
  const isOne = outer.size === 1 && files.every(({ name }) => name.includes("/"));
  if (!isOne) return files;
  return files.map(({ name, file }) => ({
    name: name.slice(name.indexOf("/") + 1),
    file,
  }));
}

export default {
  props: { piece: Number, words: String },
  emits: ["chosen", "finished"],
  template: `
    <div
      class="upload"
      :class="{ 'is-over': over }"
      @dragover.prevent="over = true"
      @dragleave="over = false"
      @drop.prevent="drop"
    >
      <p>{{ words }}</p>
      <div class="chips">
        <button type="button" :disabled="busy" @click="$refs.files.click()">Choose files</button>
        <button type="button" :disabled="busy" @click="$refs.folder.click()">Choose a folder</button>
      </div>
      <input
        ref="files"
        type="file"
        multiple
        hidden
        aria-label="Files to bring in"
        accept="image/*,.txt,.caption,.zip"
        @change="pick"
      />
      <input
        ref="folder"
        type="file"
        webkitdirectory
        hidden
        aria-label="Folder to bring in"
        @change="pick"
      />
      <div v-if="busy" class="upload-progress" role="status">
        <progress :max="total || 1" :value="sent"></progress>
        <span>{{ told }}</span>
      </div>
    </div>`,
  data() {
    return {
      over: false,
      busy: false,
      sent: 0,
      total: 0,
      done: 0,
      count: 0,
      trouble: "",
    };
  },
  created() {
    this.files = [];
    this.gone = false;
  },
  beforeUnmount() {
    this.gone = true;
  },
  computed: {
    told() {
      const files = `${this.done} of ${this.count} files`;
      return this.trouble ? `${files} · ${this.trouble}` : files;
    },
  },
  methods: {
    async drop(event) {
      this.over = false;
      if (this.busy) return;
      const entries = [...event.dataTransfer.items].map((item) =>
        item.webkitGetAsEntry(),
      );
      const found = await Promise.all(
        entries.filter(Boolean).map((entry) => inside(entry, "")),
      );
      this.announce(found.flat());
    },
    pick(event) {
      const files = [...event.target.files].map((file) => ({
        name: file.webkitRelativePath || file.name,
        file,
      }));
      // so that the same files can be chosen again
      event.target.value = "";
      this.announce(files);
    },
    announce(files) {
      if (!files.length) return;
      // until the server has said what may come, nothing else is to take its place
      Object.assign(this, {
        busy: true,
        sent: 0,
        total: 0,
        done: 0,
        count: files.length,
      });
      this.files = withoutOuter(files);
      const told = this.files.map(({ name, file }) => [
        name,
        file.size,
        file.lastModified,
      ]);
      for (let k = 0; k < told.length; k += AT_ONCE)
        this.$emit("chosen", told.slice(k, k + AT_ONCE), k + AT_ONCE >= told.length);
    },
    // Nothing of what was announced is to come.
    leave() {
      this.files = [];
      this.busy = false;
    },
    // ids: of the files that may come, by their place in what was chosen.
    async go(ids) {
      const wanted = Object.entries(ids).map(([k, id]) => ({ id, ...this.files[k] }));
      this.count = wanted.length;
      this.total = wanted.reduce((sum, { file }) => sum + file.size, 0);
      const refused = [];
      for (const { id, name, file } of wanted) {
        if (this.gone) return;
        const before = this.sent;
        const why = await this.send(id, file);
        if (why) refused.push(`${name}: ${why}`);
        this.sent = before + file.size;
        this.done += 1;
      }
      this.leave();
      this.$emit("finished", refused);
    },
    // Nothing, or why the server does not take it.
    async send(id, file) {
      const before = this.sent;
      let at = 0;
      let tries = 0;
      let known = false;
      while (!this.gone) {
        try {
          const address = `/uploads/${id}`;
          const answer = known
            ? await fetch(`${address}?at=${at}`, {
                method: "PUT",
                body: file.slice(at, at + this.piece),
              })
            : await fetch(address);
          if (![200, 409].includes(answer.status)) return await answer.text();
          const told = await answer.json();
          known = true;
          tries = 0;
          this.trouble = "";
          at = told.offset;
          this.sent = before + at;
          if (told.done) return "";
        } catch {
          // the connection is lost: ask how much is there, for as long as it takes
          known = false;
          this.trouble = "waiting for the connection";
          const pause = PAUSES[Math.min(tries, PAUSES.length - 1)];
          tries += 1;
          await new Promise((wake) => setTimeout(wake, pause));
        }
      }
      return "";
    },
  },
};
